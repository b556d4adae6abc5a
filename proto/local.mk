noinst_LTLIBRARIES += libctsproto.la
libctsproto_la_SOURCES = %D%/msgpack.h %D%/msgpack.c %D%/ctl_msg.h %D%/ctl_msg.c
libctsproto_la_LIBADD = libctsbase.la $(MSGPACK_LIBS)
