"""What happens between a prompt and its answer."""
