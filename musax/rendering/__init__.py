"""Audio from notes: soundfonts, synthetic instruments, rooms and microphones."""
