# Two libraries: libctsbase needs nothing but libc and goes into libcts too;
# libctsfile is the daemon's and the tools' and brings jansson, libsodium, xxHash.
noinst_LTLIBRARIES += libctsbase.la libctsfile.la
libctsbase_la_SOURCES = \
    %D%/assert.h %D%/assert.c %D%/err.h %D%/err.c %D%/log.h %D%/log.c %D%/clock.h %D%/clock.c \
    %D%/span.h %D%/buf.h %D%/buf.c %D%/utf8.h %D%/utf8.c %D%/wait.h %D%/wait.c \
    %D%/spsc.h %D%/spsc.c %D%/progress.h %D%/progress.c
libctsfile_la_SOURCES = \
    %D%/file.h %D%/file.c %D%/json.h %D%/json.c %D%/hash.h %D%/hash.c %D%/dtype.h %D%/dtype.c \
    %D%/safetensors.h %D%/safetensors.c
libctsfile_la_LIBADD = libctsbase.la $(JANSSON_LIBS) $(SODIUM_LIBS) $(XXHASH_LIBS)
