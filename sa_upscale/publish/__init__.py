"""Our checkpoints to the Hugging Face Hub."""
