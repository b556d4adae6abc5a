# tests of serve
