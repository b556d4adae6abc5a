# libctsd is all of the daemon but main.c; the programs and the tests link it.
# Each room below adds its sources in its own file.
noinst_LTLIBRARIES += libctsd.la
libctsd_la_SOURCES = %D%/config.h %D%/config.c %D%/loop.h %D%/loop.c
libctsd_la_LIBADD = libctsfile.la libctsbase.la libctskernels.la libctsshm.la libctsproto.la \
    $(UV_LIBS) $(CONFUSE_LIBS) $(LAPACKE_LIBS) -lm
sbin_PROGRAMS += ctsd
ctsd_SOURCES = %D%/main.c
ctsd_LDADD = libctsd.la
include daemon/model/local.mk
include daemon/store/local.mk
include daemon/compress/local.mk
include daemon/engine/local.mk
include daemon/serve/local.mk
