"""Model families that come with the trainer."""
