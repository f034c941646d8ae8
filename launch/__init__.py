"""The programs: each file is a command, installed as `ovd-NAME`."""
