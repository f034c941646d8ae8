"""What a run leaves behind: metrics, curves, a bar; and whether it still learns."""
