# tests of serve, shm and proto
check_PROGRAMS += tests/test_ring tests/test_record
tests_test_ring_SOURCES = tests/test_ring.c
tests_test_ring_LDADD = libctsshm.la libctsbase.la $(CMOCKA_LIBS)
tests_test_record_SOURCES = tests/test_record.c
tests_test_record_LDADD = libctsshm.la libctsbase.la $(CMOCKA_LIBS)
