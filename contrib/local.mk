EXTRA_DIST += LICENSE contrib/demo contrib/check-layers.sh
TESTS += contrib/check-layers.sh
TESTS_ENVIRONMENT = srcdir='$(srcdir)'; export srcdir;
