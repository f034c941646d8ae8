"""Parts of `train.py`: methods, batches, collecting ahead."""
