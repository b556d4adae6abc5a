noinst_LTLIBRARIES += libctskernels.la
libctskernels_la_SOURCES = %D%/ctsk.h
libctskernels_la_LIBADD = libctsbase.la
