# tests of compress
