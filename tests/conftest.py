"""For all tests: hypothesis judges what comes out, not how long a shared machine took for it."""

from hypothesis import settings

settings.register_profile("stream", deadline=None)
settings.load_profile("stream")
