"""The training of the demo model: corpus, network, export (see ../train_demo.py)."""
