import type { Diff, DiffFile, FileName } from '@/api/git';
import { countHidden } from './hidden';
import { parseDiff, type PatchFile } from './parse';
import { sha256 } from './sha256';

export type FileStatus =
  'added' | 'deleted' | 'modified' | 'renamed' | 'copied' | 'type' | 'conflict' | 'unknown';

/** One changed file as it is reviewed: what the server lists of it and what its text says. */
export type ReviewFile = {
  /** The same for the same file in every diff: its name, or its name's bytes. */
  id: string;
  name: FileName;
  original: FileName | undefined;
  status: FileStatus;
  added: number | undefined;
  removed: number | undefined;
  binary: boolean;
  /** Undefined where the text did not come. A change of a file's type is two. */
  patches: readonly PatchFile[] | undefined;
  /** Its part of the diff's text. */
  text: string;
  /** Characters in lines that it adds, or in its name, that nobody would see. */
  hidden: number;
};

const STATUSES: Readonly<Record<string, FileStatus>> = {
  A: 'added',
  D: 'deleted',
  M: 'modified',
  R: 'renamed',
  C: 'copied',
  T: 'type',
  U: 'conflict',
};
const OF_PATCH: Readonly<Record<PatchFile['kind'], FileStatus>> = {
  added: 'added',
  deleted: 'deleted',
  modified: 'modified',
  renamed: 'renamed',
  copied: 'copied',
  unmerged: 'conflict',
};

/** The files of a diff. One that was only listed has no patches yet. Pure. */
export function reviewFiles(diff: Pick<Diff, 'diff' | 'files'>): ReviewFile[] {
  const byName = new Map<string, PatchFile[]>();
  for (const patch of parseDiff(diff.diff)) {
    const same = byName.get(patch.name);
    if (same) same.push(patch);
    else byName.set(patch.name, [patch]);
  }
  const files = new Map<string, ReviewFile>();
  for (const listed of diff.files) {
    const patches = byName.get(listed.filename);
    const file = fromList(listed, patches, diff.diff);
    const known = files.get(file.id);
    // git lists a file with a conflict twice.
    if (known && known.status !== 'conflict') files.set(file.id, { ...known, status: file.status });
    else if (!known) files.set(file.id, file);
    byName.delete(listed.filename);
  }
  for (const [name, patches] of byName) {
    const file = fromPatches(name, patches, diff.diff);
    if (!files.has(file.id)) files.set(file.id, file);
  }
  return [...files.values()];
}

/** Gives a file the text that was fetched for it alone. Pure. */
export function withText(file: ReviewFile, diff: Pick<Diff, 'diff' | 'files'>): ReviewFile {
  const found = reviewFiles(diff).find((one) => one.id === file.id);
  return found?.patches ? { ...file, patches: found.patches, text: found.text, hidden: found.hidden } : file;
}

/** Changes when anything of what is shown of the file changes. */
export function contentHash(file: ReviewFile): string {
  return sha256(
    JSON.stringify([file.id, file.original?.base64 ?? file.original?.name ?? '', file.status]) + file.text,
  );
}

/** Whether all of the file's text is there. */
export function isWhole(file: ReviewFile): boolean {
  return file.patches !== undefined && !file.patches.some((patch) => patch.hunks.some((hunk) => hunk.cut));
}

function fromList(listed: DiffFile, patches: PatchFile[] | undefined, whole: string): ReviewFile {
  const { filename, filenameBase64, originalFilename, originalFilenameBase64 } = listed;
  return {
    id: filenameBase64 ?? filename,
    name: { name: filename, base64: filenameBase64 },
    original:
      originalFilename === undefined || originalFilename === null
        ? undefined
        : { name: originalFilename, base64: originalFilenameBase64 },
    status: STATUSES[listed.status.charAt(0)] ?? 'unknown',
    added: listed.added ?? undefined,
    removed: listed.deleted ?? undefined,
    binary: listed.binary === true || patches?.some((patch) => patch.binary) === true,
    patches,
    ...textOf(filename, patches, whole),
  };
}

function fromPatches(name: string, patches: PatchFile[], whole: string): ReviewFile {
  const [first] = patches;
  const moved = first?.kind === 'renamed' || first?.kind === 'copied';
  return {
    id: name,
    name: { name },
    original: moved && first.oldName !== null ? { name: first.oldName } : undefined,
    status: patches.length > 1 ? 'type' : first ? OF_PATCH[first.kind] : 'unknown',
    added: patches.reduce((sum, one) => sum + one.added, 0),
    removed: patches.reduce((sum, one) => sum + one.removed, 0),
    binary: patches.some((one) => one.binary),
    patches,
    ...textOf(name, patches, whole),
  };
}

function textOf(name: string, patches: readonly PatchFile[] | undefined, whole: string) {
  const text = (patches ?? []).map((one) => whole.slice(one.from, one.to)).join('');
  let hidden = countHidden(name);
  // The text is looked at once; only a file with something in it is looked at line by line.
  if (countHidden(text.replaceAll('\r\n', '\n'), 1) > 0) {
    for (const patch of patches ?? []) {
      for (const hunk of patch.hunks) {
        for (const line of hunk.lines) {
          if (line.kind === 'added') hidden += countHidden(withoutReturn(line.text));
        }
      }
    }
  }
  return { text, hidden };
}

/** A line without the carriage return that ends it on some systems. */
export function withoutReturn(text: string): string {
  return text.endsWith('\r') ? text.slice(0, -1) : text;
}

const GENERATED =
  /(?:^|\/)(?:package-lock\.json|npm-shrinkwrap\.json|yarn\.lock|pnpm-lock\.yaml|bun\.lockb?|Cargo\.lock|poetry\.lock|uv\.lock|Pipfile\.lock|composer\.lock|Gemfile\.lock|go\.sum|flake\.lock)$|\.min\.(?:js|css)$|\.(?:js|css)\.map$|\.snap$/u;
const LARGE_LINES = 1_500;
const LARGE_TEXT = 300_000;
const SHORT_TEXT = 4_000;

/** Why a file is folded until somebody asks for it; undefined for most. Pure. */
export function foldReason(file: ReviewFile): 'generated' | 'large' | undefined {
  if (file.patches === undefined || file.binary) return undefined;
  const lines = file.patches.reduce((sum, one) => sum + one.added + one.removed, 0);
  if (lines > LARGE_LINES || file.text.length > LARGE_TEXT) return 'large';
  const long = lines > 20 || file.text.length > SHORT_TEXT;
  return long && GENERATED.test(file.name.name) ? 'generated' : undefined;
}
