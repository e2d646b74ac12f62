package queue

import "syscall"

// The magic numbers of statfs(2) for file systems whose locks or shared memory
// maps do not hold up for SQLite's write-ahead log: the network ones, and FUSE,
// behind which a network is as a rule (sshfs, s3fs, gluster).
var unsuitable = map[uint32]string{
	0x6969:     "NFS",
	0x517b:     "SMB",
	0xfe534d42: "SMB",
	0xff534d42: "CIFS",
	0x01021997: "9p",
	0x5346414f: "AFS",
	0x6b414653: "AFS",
	0x73757245: "Coda",
	0x00c36400: "Ceph",
	0x564c:     "NCP",
	0x65735546: "FUSE",
	0x0bd00bd0: "Lustre",
}

// unsuitableFileSystem names the file system of dir when no store can be there,
// else it is empty.
func unsuitableFileSystem(dir string) string {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return "" // the probe that follows tells more
	}
	return unsuitable[uint32(st.Type)] // magic numbers have 32 bits; the field's type differs by architecture
}
