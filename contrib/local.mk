EXTRA_DIST += contrib/make-unicode-tables LICENSE contrib/demo contrib/check-layers.sh contrib/deps contrib/fuzz contrib/quickstart contrib/check contrib/oracle
TESTS += contrib/check-layers.sh
TESTS_ENVIRONMENT = srcdir='$(srcdir)'; export srcdir;
