"""What must hold in every order: tests that need Hypothesis (requirements-dev.txt)."""

from tests.support.needs import left_out

collect_ignore_glob = left_out(__file__, packages=["hypothesis"])
