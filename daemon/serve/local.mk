# doors: control socket, shared memory
libctsd_la_SOURCES += \
    %D%/adapters.h %D%/adapters.c %D%/generate.h %D%/generate.c %D%/live.h %D%/live.c \
    %D%/shm_server.h %D%/shm_server.c %D%/listen.h %D%/listen.c %D%/sdnotify.h %D%/sdnotify.c \
    %D%/ctl_server.h %D%/ctl_server.c %D%/ctl_conn.h %D%/ctl_table.c %D%/ctl_methods.c %D%/ctl_generate.c
