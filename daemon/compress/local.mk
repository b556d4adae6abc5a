# cts-compress and its library code
