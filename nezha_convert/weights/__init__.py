"""The weights' files: laid out, streamed, read back."""
