noinst_LTLIBRARIES += libctsproto.la
libctsproto_la_SOURCES = %D%/msgpack.h %D%/ctl_msg.h
libctsproto_la_LIBADD = libctsbase.la $(MSGPACK_LIBS)
