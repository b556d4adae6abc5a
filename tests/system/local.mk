# tests that start the real ctsd
