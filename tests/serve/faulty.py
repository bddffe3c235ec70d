"""SGLang's server with a fault in one of its processes; a spawned process reads this file again as `__mp_main__`.

SMALL4_FAULT names the place; the fault happens at the first prompt that ends with the id FAULTY.
"""

import os
import sys

FAULTY = 767
if __name__ == "__mp_main__" and os.environ["SMALL4_FAULT"] == "forward":
    from sgl_small4.model import decoder

    forward = decoder.EntryClass.forward

    def fail_in_forward(model, input_ids, *args, **kwargs):
        if (input_ids == FAULTY).any():
            raise ZeroDivisionError("broken on purpose")
        return forward(model, input_ids, *args, **kwargs)

    decoder.EntryClass.forward = fail_in_forward

if __name__ == "__mp_main__" and os.environ["SMALL4_FAULT"] == "detokenizer":
    from sglang.srt.managers.detokenizer_manager import DetokenizerManager

    decode = DetokenizerManager.handle_batch_token_id_out

    def fail_in_detokenizer(manager, received):
        if any(FAULTY in ids for ids in received.decode_ids):
            raise ZeroDivisionError("broken on purpose")
        return decode(manager, received)

    DetokenizerManager.handle_batch_token_id_out = fail_in_detokenizer

if __name__ == "__main__":
    from launch.serve import sglang

    sys.exit(sglang())
