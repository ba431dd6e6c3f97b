"""Many checkpoints at once: a manifest's rows, what each needs, who does them, and the report."""
