# tests of compress
fault_wraps = $(AM_LDFLAGS) $(fault_ldflags)
check_PROGRAMS += tests/test_slot_file tests/test_collection
tests_test_slot_file_SOURCES = %D%/test_slot_file.c %D%/tiny_collection.h %D%/fault.h %D%/fault.c
tests_test_slot_file_LDADD = $(tests_ldadd)
tests_test_slot_file_LDFLAGS = $(fault_wraps)
tests_test_collection_SOURCES = %D%/test_collection.c %D%/tiny_collection.h %D%/fault.h %D%/fault.c
tests_test_collection_LDADD = $(tests_ldadd)
tests_test_collection_LDFLAGS = $(fault_wraps)
