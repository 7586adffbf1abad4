"""What must hold in every order: tests that need Hypothesis (requirements-dev.txt).

`HYPOTHESIS_PROFILE=thorough` tries far more than a run of all tests has time for.
"""

import os

from tests.support.needs import left_out

collect_ignore_glob = left_out(__file__, packages=["hypothesis"])

if not collect_ignore_glob:
    from hypothesis import settings

    settings.register_profile("default", max_examples=60, deadline=None)
    settings.register_profile("thorough", max_examples=3000, deadline=None)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
