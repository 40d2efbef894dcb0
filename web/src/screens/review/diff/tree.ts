import type { ReviewFile } from './files';

export type TreeRow =
  | {
      type: 'folder';
      path: string;
      /** What is shown: several folders in one where each has only the next in it. */
      label: string;
      depth: number;
      open: boolean;
      files: readonly ReviewFile[];
    }
  | { type: 'file'; file: ReviewFile; label: string; depth: number };

type Folder = { folders: Map<string, Folder>; files: ReviewFile[] };

function folderTree(files: readonly ReviewFile[]): Folder {
  const root: Folder = { folders: new Map(), files: [] };
  for (const file of files) {
    let at = root;
    for (const part of file.name.name.split('/').slice(0, -1)) {
      let next = at.folders.get(part);
      if (!next) {
        next = { folders: new Map(), files: [] };
        at.folders.set(part, next);
      }
      at = next;
    }
    at.files.push(file);
  }
  return root;
}

const compare = new Intl.Collator('en', { numeric: true }).compare;
const baseName = (path: string) => path.slice(path.lastIndexOf('/') + 1);

function everyFile(folder: Folder): ReviewFile[] {
  return [...sorted(folder.folders).flatMap(([, one]) => everyFile(one)), ...sortedFiles(folder.files)];
}

function sorted(folders: Folder['folders']): [string, Folder][] {
  return [...folders].sort(([a], [b]) => compare(a, b));
}

function sortedFiles(files: readonly ReviewFile[]): ReviewFile[] {
  return [...files].sort((a, b) => compare(baseName(a.name.name), baseName(b.name.name)));
}

/** The files as the tree has them from top to bottom: folders first. Pure. */
export function inTreeOrder(files: readonly ReviewFile[]): ReviewFile[] {
  return everyFile(folderTree(files));
}

/** The tree's rows, without what is in closed folders. Pure. */
export function treeRows(files: readonly ReviewFile[], closed: ReadonlySet<string>): TreeRow[] {
  const rows: TreeRow[] = [];
  const walk = (folder: Folder, prefix: string, depth: number) => {
    for (const [first, firstFolder] of sorted(folder.folders)) {
      let [label, inner] = [first, firstFolder];
      for (;;) {
        const only = inner.files.length === 0 && inner.folders.size === 1 ? [...inner.folders][0] : undefined;
        if (!only) break;
        label = `${label}/${only[0]}`;
        inner = only[1];
      }
      const path = `${prefix}${label}`;
      const open = !closed.has(path);
      rows.push({ type: 'folder', path, label, depth, open, files: everyFile(inner) });
      if (open) walk(inner, `${path}/`, depth + 1);
    }
    for (const file of sortedFiles(folder.files)) {
      rows.push({ type: 'file', file, label: baseName(file.name.name), depth });
    }
  };
  walk(folderTree(files), '', 0);
  return rows;
}

/** The files whose names have all words of a search in them. Pure. */
export function matching(files: readonly ReviewFile[], search: string): readonly ReviewFile[] {
  const words = search.toLowerCase().split(/\s+/u).filter(Boolean);
  if (words.length === 0) return files;
  return files.filter((file) => {
    const text = `${file.name.name} ${file.original?.name ?? ''}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
}
