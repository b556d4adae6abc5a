# libctsclient is libcts before its names are hidden: ctsctl and the tests, which
# use its inner parts, link that; everybody else gets libcts.
noinst_LTLIBRARIES += libctsclient.la
libctsclient_la_SOURCES = %D%/cts.h %D%/handle.h %D%/open.c %D%/submit.c %D%/next.c %D%/generate.c \
    %D%/conn.h %D%/conn.c %D%/event.h %D%/event.c %D%/names.h %D%/names.c %D%/request.h %D%/request.c
libctsclient_la_LIBADD = libctsshm.la libctsproto.la libctsbase.la

# libcts is made of the objects themselves: libtool cannot put convenience
# libraries that share a third into a shared one.
lib_LTLIBRARIES += libcts.la
libcts_la_SOURCES = $(libctsclient_la_SOURCES) $(libctsshm_la_SOURCES) $(libctsproto_la_SOURCES) \
    common/assert.h common/assert.c common/err.h common/err.c common/clock.h common/clock.c common/span.h \
    common/buf.h common/buf.c common/utf8.h common/utf8.c common/wait.h common/wait.c
libcts_la_LIBADD = $(MSGPACK_LIBS)
libcts_la_LDFLAGS = $(AM_LDFLAGS) -version-info 0:0:0 -no-undefined -Wl,--version-script=$(top_srcdir)/%D%/libcts.map
EXTRA_libcts_la_DEPENDENCIES = %D%/libcts.map
include_HEADERS += %D%/cts.h
pkgconfig_DATA += %D%/cts.pc
EXTRA_DIST += %D%/libcts.map

bin_PROGRAMS += ctsctl
ctsctl_SOURCES = %D%/ctsctl.h %D%/ctsctl.c %D%/ctsctl_out.c %D%/ctsctl_admin.c %D%/ctsctl_run.c %D%/ctsctl_eval.c \
    %D%/eval_file.h %D%/eval_file.c
ctsctl_LDADD = libctsclient.la libctsfile.la libctsbase.la -lm

bashcompletiondir = $(datadir)/bash-completion/completions
dist_bashcompletion_DATA = contrib/completions/ctsctl.bash
