"""Other people's ways to transcribe, to compare with."""
