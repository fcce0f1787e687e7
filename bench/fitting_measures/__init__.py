"""What `bench/summarizer.py` measures: the conversations, what survives of them, and the baselines."""
