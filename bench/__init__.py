"""What the product costs and withstands, measured: one script for each question, on the real parts."""
