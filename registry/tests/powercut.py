#!/usr/bin/env python3
"""Power cuts under the write-ahead log: is everything acknowledged still there?

usage: unshare -m powercut.py TORTURE --cuts N [--control] [--seed S]

Needs root, Linux, ext4, loop devices and strace; run it in a mount namespace of its own, so that nothing
stays mounted however it ends. One cut:

  1. `wal-torture write` acknowledges writes, while a thread fsyncs another file of the same file system
     (its journal commits must not make our bytes durable for us, nor spoil them);
  2. after a random time EXT4_IOC_SHUTDOWN without a log flush: page cache and uncommitted journal are gone;
  3. the writer is killed, and a copy of the image is mounted, so that nothing cached speaks for the disk;
  4. `wal-torture check` compares with every line that the writer printed. Those after the cut count too: a
     sync that succeeds has reached the disk, however late its success is heard.

Some cuts come without that thread: its syncs could also hide one that we forgot. In every fourth cut the
writer is killed first, most likely between a write and its sync, and the log reopened; what that reported
is held against the log after a cut which follows at once.
The control writes without fdatasync and ends at its first loss.
It does not model a drive that lies about its own cache. The last line is the summary, as JSON.
"""
import argparse, fcntl, json, os, random, select, shutil, signal, struct, subprocess, sys, tempfile, threading, time

EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, u32)
WITHOUT_LOG_FLUSH = struct.pack("I", 2)
IMAGE_BYTES = 96 << 20
GROUPS = (1, 2, 16)
KILL_FIRST_EVERY = 4
ALONE_EVERY = 5  # the neighbour's journal commits would hide a forgotten fsync of the folder
SEGMENT_BYTES = (64 << 10, 4 << 20)  # many new segments, and the size in production
WRITE_SECONDS = (0.03, 0.8)
CHECK_LOST, CHECK_REFUSED = 1, 2

# A writer's life is mostly spent inside fdatasync, where a kill comes too late: this holds it before each.
SYNC_LATE = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=fdatasync:delay_enter=10000"]


def run(*command):
    subprocess.run(command, check=True)


class Disk:
    """An ext4 file system on a loop device whose power can be cut."""

    def __init__(self, base):
        self.base, self.generation = base, 0
        self.mount = os.path.join(base, "mount")
        os.mkdir(self.mount)
        with open(self.image(), "wb") as image:
            image.truncate(IMAGE_BYTES)
        run("mkfs.ext4", "-q", "-F", self.image())
        self.attach()

    def image(self):
        return os.path.join(self.base, f"image.{self.generation}")

    def attach(self):
        run("mount", "-o", "loop", self.image(), self.mount)

    def cut_power(self):
        folder = os.open(self.mount, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, EXT4_IOC_SHUTDOWN, WITHOUT_LOG_FLUSH)
        finally:
            os.close(folder)

    def power_on(self):
        run("umount", self.mount)
        old = self.image()
        self.generation += 1
        run("cp", "--sparse=always", old, self.image())
        os.remove(old)
        self.attach()


class Neighbour(threading.Thread):
    """Another writer on the same file system, until the power goes."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.syncs, self.stop = path, 0, threading.Event()

    def run(self):
        try:
            with open(self.path, "ab", buffering=0) as file:
                while not self.stop.is_set():
                    file.write(b"x" * 3000)
                    os.fsync(file.fileno())
                    self.syncs += 1
        except OSError:
            pass  # the power is off


class Writer:
    """`wal-torture write`, and the lines that it has printed so far."""

    def __init__(self, torture, folder, number, control):
        group, segment = GROUPS[number % len(GROUPS)], SEGMENT_BYTES[number % len(SEGMENT_BYTES)]
        command = [torture, "write", folder, "--group", str(group), "--segment", str(segment)]
        command = SYNC_LATE * kill_first(number) + command + ["--no-fdatasync"] * control
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        self.printed = b""

    def read_until(self, end):
        while (left := end - time.monotonic()) > 0:
            if select.select([self.process.stdout], [], [], left)[0] and not self.read_some():
                raise SystemExit(f"the writer ended by itself: {self.process.wait()}")

    def read_some(self):
        chunk = os.read(self.process.stdout.fileno(), 1 << 16)
        self.printed += chunk
        return chunk

    def kill(self):
        """Gives all whole lines that it printed."""
        os.killpg(self.process.pid, signal.SIGKILL)
        while self.read_some():
            pass
        self.process.wait()
        self.process.stdout.close()
        return self.printed[: self.printed.rfind(b"\n") + 1]


def kill_first(number):
    return number % KILL_FIRST_EVERY == 0


class Trial:
    def __init__(self, args, base):
        self.args, self.disk = args, Disk(base)
        self.chance = random.Random(args.seed)
        self.folder = os.path.join(self.disk.mount, "log")
        self.acks = os.path.join(base, "acks")
        self.summary = dict(seed=args.seed, cuts=0, acknowledged=0, neighbour_syncs=0, lost=0, refused=0)
        self.forget()

    def forget(self):
        open(self.acks, "w").close()

    def check(self):
        done = subprocess.run([self.args.torture, "check", self.folder, self.acks], stdout=subprocess.DEVNULL)
        if done.returncode not in (0, CHECK_LOST, CHECK_REFUSED):
            raise SystemExit(f"the check ended with {done.returncode}")
        self.summary["lost"] += done.returncode == CHECK_LOST
        self.summary["refused"] += done.returncode == CHECK_REFUSED
        return done.returncode == 0

    def cut(self, number):
        neighbour = Neighbour(os.path.join(self.disk.mount, "neighbour"))
        if number % ALONE_EVERY == 0:
            neighbour.stop.set()
        neighbour.start()
        writer = Writer(self.args.torture, self.folder, number, self.args.control)
        writer.read_until(time.monotonic() + self.chance.uniform(*WRITE_SECONDS))
        sound = True
        if kill_first(number):
            lines = writer.kill()
            self.note(lines)
            # A killed process had perhaps written what it never synced: now the reopen vouches for it.
            sound = self.check()
            self.disk.cut_power()
        else:
            self.disk.cut_power()
            lines = writer.kill()
            self.note(lines)
        neighbour.stop.set()
        neighbour.join()
        self.disk.power_on()
        sound = self.check() and sound
        self.summary["cuts"] += 1
        self.summary["acknowledged"] += sum(line[:1] in b"evtp" for line in lines.splitlines())
        self.summary["neighbour_syncs"] += neighbour.syncs
        os.remove(neighbour.path)
        if not sound:
            shutil.rmtree(self.folder)
            self.forget()
        return sound

    def note(self, lines):
        with open(self.acks, "ab") as acks:
            acks.write(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("torture")
    parser.add_argument("--cuts", type=int, required=True)
    parser.add_argument("--control", action="store_true")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="powercut-") as base:
        trial = Trial(args, base)
        try:
            for number in range(1, args.cuts + 1):
                if not trial.cut(number) and args.control:
                    break
        finally:
            subprocess.run(["umount", "--lazy", trial.disk.mount])  # the neighbour may still be writing
    print(json.dumps(trial.summary))
    sys.exit(0)


if __name__ == "__main__":
    main()
