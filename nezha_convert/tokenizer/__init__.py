"""The tokenizer's files."""
