noinst_LTLIBRARIES += libctsshm.la
libctsshm_la_SOURCES = %D%/layout.h %D%/ring.h %D%/ring.c %D%/record.h %D%/record.c %D%/segment.h %D%/segment.c
libctsshm_la_LIBADD = libctsbase.la
