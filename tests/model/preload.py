"""What the fork server imports once, as a scheduler process would: the platform and the plugin first."""

import sglang.benchmark.one_batch  # noqa: F401
