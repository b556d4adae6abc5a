# libctsclient is libcts before its names are hidden: ctsctl and the tests, which
# use its inner parts, link that; everybody else gets libcts.
noinst_LTLIBRARIES += libctsclient.la
libctsclient_la_SOURCES = %D%/cts.h %D%/handle.h %D%/open.c %D%/submit.c %D%/next.c %D%/generate.c \
    %D%/conn.h %D%/conn.c %D%/event.h %D%/event.c %D%/names.h %D%/names.c %D%/request.h %D%/request.c
libctsclient_la_LIBADD = libctsshm.la libctsproto.la libctsbase.la

lib_LTLIBRARIES += libcts.la
libcts_la_SOURCES =
libcts_la_LIBADD = libctsclient.la
libcts_la_LDFLAGS = $(AM_LDFLAGS) -version-info 0:0:0 -no-undefined -Wl,--version-script=$(top_srcdir)/%D%/libcts.map
libcts_la_DEPENDENCIES = libctsclient.la %D%/libcts.map
include_HEADERS += %D%/cts.h
pkgconfig_DATA += %D%/cts.pc
EXTRA_DIST += %D%/libcts.map

bin_PROGRAMS += ctsctl
ctsctl_SOURCES = %D%/ctsctl.h %D%/ctsctl.c %D%/ctsctl_out.c %D%/ctsctl_admin.c %D%/ctsctl_run.c %D%/ctsctl_eval.c \
    %D%/eval_file.h %D%/eval_file.c
ctsctl_LDADD = libctsclient.la libctsfile.la libctsbase.la -lm
