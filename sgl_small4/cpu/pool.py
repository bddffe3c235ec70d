"""The latent cache on a CPU: memory that the operating system hands out as it is first written."""

import numpy as np
import torch
from sglang.srt.mem_cache.memory_pool import MLATokenToKVPool


class LazyLatentPool(MLATokenToKVPool):
    """SGLang's pool, whose buffers cost memory and start-up time only for the slots that are used.

    `torch.zeros` writes every page at once: seconds and gigabytes at the full context. numpy's zeros are `calloc`ed, so
    the pages appear, zeroed, at the first write.
    """

    def _create_buffers(self) -> None:
        shape = (self.size + self.page_size, 1, self.kv_cache_dim)  # slot 0 takes what padded tokens write
        row = self.kv_cache_dim * self.store_dtype.itemsize
        self.kv_buffer = [
            torch.from_numpy(np.zeros(shape[0] * row, dtype=np.uint8)).view(self.store_dtype).view(shape)
            for _ in range(self.layer_num)
        ]
