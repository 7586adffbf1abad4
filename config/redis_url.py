"""What a Redis URL may say: where Redis is, who asks, and which certificates are trusted.

`rediss://` always means TLS 1.2 or later with the server's certificate and host name verified. The
options are those of redis-py, but only those that are listed here: one that would switch that off,
or change how we speak to Redis, is refused. Orchestrator and workers read their URL by this.
"""

import ssl
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

SCHEMES = ("redis", "rediss", "unix")
FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
# What may be said as well, because it is so anyway.
ALWAYS = {"ssl_cert_reqs": "required", "ssl_check_hostname": "true"}
KNOWN = ("db", *FILES, *ALWAYS)

NO_URL = "must be a URL: redis://HOST:PORT/DB, rediss://HOST:PORT/DB, unix:///PATH"


def complaint(url: str) -> str | None:
    """What is wrong with a URL, without repeating anything of it; None if it can be used."""
    if not _leads_somewhere(url):
        return NO_URL
    options = _options(url)
    if not options.keys() <= set(KNOWN):  # not repeated: a `?` within a password makes one, too
        return f"has an unknown option; known are {', '.join(KNOWN)}"
    if any(len(values) > 1 for values in options.values()):
        return "gives an option twice"
    for name, only in ALWAYS.items():
        if options.get(name, [only])[0].lower() != only:
            return f"has an option {name} that is not {only}: what Redis shows is always verified"
    if not options.get("db", ["0"])[0].isdigit():
        return "has an option db that is no number"
    return _wrong_with_files(url, {name: options[name][0] for name in FILES if name in options})


def is_tls(url: str) -> bool:
    return url.startswith("rediss:")


def _leads_somewhere(url: str) -> bool:
    try:
        parts = urlsplit(url)
        reachable = parts.path if parts.scheme == "unix" else parts.hostname
        good = parts.scheme in SCHEMES and reachable and parts.port != 0
    except ValueError:
        return False
    number = parts.path.strip("/")
    if parts.scheme != "unix" and number and not (number.isascii() and number.isdigit()):
        return False
    return bool(good) and not any(map(str.isspace, url))


def _options(url: str) -> Mapping[str, list[str]]:
    return parse_qs(urlsplit(url).query, keep_blank_values=True)


def _wrong_with_files(url: str, files: Mapping[str, str]) -> str | None:
    """Reads them once, so that a wrong path is told at the start and not when Redis is needed."""
    if not files:
        return None
    if not is_tls(url):
        return f"has an option {next(iter(files))}, which is for rediss:// only"
    if "ssl_keyfile" in files and "ssl_certfile" not in files:
        return "has an option ssl_keyfile without ssl_certfile"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if "ssl_ca_certs" in files:
        try:
            context.load_verify_locations(files["ssl_ca_certs"])
        except (OSError, ValueError) as error:
            return f"has an option ssl_ca_certs whose file {_why(error)}"
    if "ssl_certfile" in files:
        try:
            # Asked for a password, a terminal would wait for somebody to type one.
            context.load_cert_chain(files["ssl_certfile"], files.get("ssl_keyfile"), password="")
        except (OSError, ValueError) as error:
            return f"has an option ssl_certfile or ssl_keyfile whose file {_why(error)}"
    return None


def _why(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return f"cannot be read: {error.strerror}"
    return "holds nothing that fits (PEM is needed, a key without password)"
