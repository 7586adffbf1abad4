"""What must hold in every order: tests that need Hypothesis (requirements-dev.txt).

`HYPOTHESIS_PROFILE=thorough` tries far more than a run of all tests has time for.
"""

import os

from tests.support.needs import left_out

collect_ignore_glob = left_out(__file__, packages=["hypothesis"])

if not collect_ignore_glob:
    from hypothesis import HealthCheck, settings

    # A slow machine is no failure: neither of an example, nor of what draws it.
    patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("default", patient, max_examples=60)
    settings.register_profile("thorough", patient, max_examples=3000)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
