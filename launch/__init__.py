"""The programs: each file is a command, here and as `ovd-NAME` where it is installed."""
