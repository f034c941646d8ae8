"""What a student is asked, and what pays."""
