"""Models: tensors in, tensors out. Importing this room tells the library's Auto classes about them."""

from . import video_llama as video_llama
