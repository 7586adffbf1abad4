"""Commands beside serving: a token, or an API key, for trying things out."""

import argparse
import hashlib
import json
import secrets
import sys
import time

import jwt

from config import rules
from config.auth_rules import has_static_key
from config.settings import AuthSettings, ConfigurationError
from orchestrator.auth.api_keys import LONGEST
from orchestrator.auth.caller import Scope
from orchestrator.auth.credentials import VISIBLE
from orchestrator.auth.keys import SigningKey, signing_key

SHORTEST_KEY = 32  # characters; shorter ones might be guessed from their hash
KEY_PREFIX = "ao_"  # by which a key that lies around is recognised
TOKEN_SECONDS = 3600
HOW_TO_SIGN = (
    "give auth.jwt.key a secret (openssl rand -hex 64) with algorithms: [HS256],"
    " or auth.jwt.key_file a private key"
)


def add_token(parser: argparse.ArgumentParser) -> None:
    """The options of `token`."""
    parser.description = "Prints a token signed with auth.jwt.key or the private auth.jwt.key_file."
    parser.add_argument("--tenant", required=True, type=_id, metavar="T", help="claim tenant_id")
    parser.add_argument("--user", default="someone", type=_id, metavar="U", help="claim sub")
    _add_scopes(parser)
    parser.add_argument(
        "--session",
        action="append",
        type=_id,
        metavar="S",
        help="a session that it is for; may be given again (default: all)",
    )
    parser.add_argument(
        "--expires-in",
        type=_seconds,
        default=TOKEN_SECONDS,
        metavar="SECONDS",
        help=f"(default: {TOKEN_SECONDS})",
    )


def add_hash_key(parser: argparse.ArgumentParser) -> None:
    """The options of `hash-key`."""
    parser.description = "Makes an API key, and its entry for auth.api_keys."
    parser.add_argument("source", nargs="?", choices=["-"], help="read the key from standard input")
    parser.add_argument(
        "--name", default="CHANGE-ME", type=_name, metavar="N", help="what logs call it"
    )
    parser.add_argument(
        "--tenant", default="CHANGE-ME", type=_id_or_all, metavar="T", help='or "*" for all'
    )
    _add_scopes(parser)


def token(auth: AuthSettings, options: argparse.Namespace) -> str:
    """A token for whom the options name, as the settings ask for one.

    Raises:
        ConfigurationError: nothing can be signed with these settings.
    """
    settings, signing = auth.jwt, _signing_key(auth)
    now = int(time.time())
    claims = {
        "tenant_id": options.tenant,
        "sub": options.user,
        "scope": " ".join(options.scope or [Scope.CHAT]),
        "iat": now,
        "exp": now + options.expires_in,
        "aud": settings.audience,
        "iss": settings.issuer,
        "sessions": options.session,
    }
    given = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(given, signing.key, algorithm=signing.algorithm)


def hash_key(options: argparse.Namespace) -> str:
    """A new key, shown once, or the one from standard input, and its entry for the settings.

    Raises:
        ConfigurationError: what was given is no key.
    """
    if options.source is None:
        key = KEY_PREFIX + secrets.token_urlsafe(32)
        head = f"The key, shown only now: {key}\nIts entry:\n"
    else:
        key, head = _given_key(), ""
    fields = {
        "name": options.name,
        "sha256": hashlib.sha256(key.encode()).hexdigest(),
        "tenant_id": options.tenant,
        "scopes": options.scope or [Scope.CHAT],
    }
    lines = [f"{name}: {json.dumps(value)}" for name, value in fields.items()]  # JSON is YAML
    return head + "- " + "\n  ".join(lines)


def _signing_key(auth: AuthSettings) -> SigningKey:
    if "jwt" not in auth.mode:
        mode = ", ".join(auth.mode)
        raise ConfigurationError(
            [f"auth.mode: is {mode}, so no token is taken; make it jwt, and {HOW_TO_SIGN}"]
        )
    signing = signing_key(auth.jwt) if has_static_key(auth.jwt) else None
    if signing is None:
        raise ConfigurationError(
            [f"auth.jwt: has public keys only, which sign nothing; instead, {HOW_TO_SIGN}"]
        )
    return signing


def _given_key() -> str:
    key = sys.stdin.readline(LONGEST + 2).rstrip("\r\n")
    if SHORTEST_KEY <= len(key) <= LONGEST and VISIBLE.fullmatch(key):
        return key
    raise ConfigurationError(
        [
            f"standard input: must be a key of {SHORTEST_KEY} to {LONGEST} letters, digits and"
            " signs, without spaces; it has to be random, as a shorter one could be guessed"
        ]
    )


# --- What options may be --------------------------------------------------------------------


def _add_scopes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scope",
        action="append",
        choices=list(Scope),
        help="chat, push or admin; may be given again (default: chat)",
    )


def _id(text: str) -> str:
    return _checked(text, rules.outside_id(text))


def _id_or_all(text: str) -> str:
    return _checked(text, rules.outside_id_or_all(text))


def _name(text: str) -> str:
    return _checked(text, rules.not_blank(text))


def _seconds(text: str) -> int:
    is_number = text.isascii() and text.isdigit() and 1 <= len(text) <= 9 and int(text) > 0
    return int(_checked(text, None if is_number else "must be a number of seconds above 0"))


def _checked(text: str, complaint: str | None) -> str:
    if complaint:
        raise argparse.ArgumentTypeError(complaint)
    return text
