dist_man_MANS += %D%/ctsd.8 %D%/ctsd.conf.5 %D%/cts.7 %D%/cts-control.7 %D%/cts-shm.7
dist_man_MANS += %D%/cts-collection.5 %D%/cts-compress.1
dist_man_MANS += %D%/libcts.3 %D%/ctsctl.1
