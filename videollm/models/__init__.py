"""Models: tensors in, tensors out. Importing this room tells the library's Auto classes about them."""

import gc

# Importing torch and transformers makes half a million objects that all stay; looking for garbage among them again and
# again is a sixth of the time that a new process needs for its first answer.
_collecting = gc.isenabled()
gc.disable()
try:
    from . import video_llama as video_llama
finally:
    if _collecting:
        gc.enable()
