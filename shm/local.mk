noinst_LTLIBRARIES += libctsshm.la
libctsshm_la_SOURCES = %D%/layout.h
libctsshm_la_LIBADD = libctsbase.la
