package sqlite

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Magic numbers that golang.org/x/sys does not have (statfs(2)).
const (
	v9fsMagic        = 0x01021997
	lustreSuperMagic = 0x0bd00bd0
)

// unsuitable are the file systems whose locks or shared memory maps do not hold
// up for SQLite's write-ahead log: the network ones, and FUSE, behind which a
// network is as a rule (sshfs, s3fs, gluster).
var unsuitable = map[uint32]string{
	unix.NFS_SUPER_MAGIC:  "NFS",
	unix.SMB_SUPER_MAGIC:  "SMB",
	unix.SMB2_SUPER_MAGIC: "SMB",
	unix.CIFS_SUPER_MAGIC: "CIFS",
	v9fsMagic:             "9p",
	unix.AFS_SUPER_MAGIC:  "AFS",
	unix.AFS_FS_MAGIC:     "AFS",
	unix.CODA_SUPER_MAGIC: "Coda",
	unix.CEPH_SUPER_MAGIC: "Ceph",
	unix.NCP_SUPER_MAGIC:  "NCP",
	unix.FUSE_SUPER_MAGIC: "FUSE",
	lustreSuperMagic:      "Lustre",
}

// unsuitableFileSystem names the file system of dir when no store can be there,
// and is empty otherwise.
func unsuitableFileSystem(dir string) string {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return "" // the probe that follows reports it
	}
	return unsuitable[uint32(st.Type)] // magic numbers have 32 bits; the field's type differs by architecture
}
