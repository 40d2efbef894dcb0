import {
  AArrowDown,
  AArrowUp,
  ArrowDown,
  ArrowLeft,
  ArrowRight,
  ArrowUp,
  ClipboardPaste,
  CornerDownLeft,
  type LucideIcon,
} from 'lucide-react';
import { type ReactNode } from 'react';
import { cn } from '@/ui/cn';
import type { BarKey, Sticky } from './keys';
import { stepFont } from './settings';

export type KeyBarActions = {
  press(key: BarKey): void;
  tap(modifier: 'ctrl' | 'alt'): void;
  pasteFromClipboard(): Promise<void>;
};

/** The keys that touch keyboards lack. A tap leaves the soft keyboard as it is. */
export function KeyBar({ ctrl, alt, actions }: { ctrl: Sticky; alt: Sticky; actions: KeyBarActions }) {
  const key = (name: BarKey, label: string, shown: ReactNode) => (
    <BarButton label={label} onPress={() => actions.press(name)}>
      {shown}
    </BarButton>
  );
  return (
    <div
      role="toolbar"
      aria-label="Terminal keys"
      className="flex shrink-0 items-stretch gap-1 overflow-x-auto overscroll-x-contain border-t border-line bg-surface px-1 py-1 [scrollbar-width:none] safe-bottom"
    >
      {key('Escape', 'Esc', 'Esc')}
      {key('Tab', 'Tab', 'Tab')}
      <StickyButton label="Ctrl" sticky={ctrl} onPress={() => actions.tap('ctrl')} />
      <StickyButton label="Alt" sticky={alt} onPress={() => actions.tap('alt')} />
      {key('ArrowLeft', 'Left', icon(ArrowLeft))}
      {key('ArrowUp', 'Up', icon(ArrowUp))}
      {key('ArrowDown', 'Down', icon(ArrowDown))}
      {key('ArrowRight', 'Right', icon(ArrowRight))}
      {key('Enter', 'Enter', icon(CornerDownLeft))}
      <BarButton label="Paste" onPress={() => void actions.pasteFromClipboard()}>
        {icon(ClipboardPaste)}
      </BarButton>
      {key('Home', 'Home', 'Home')}
      {key('End', 'End', 'End')}
      {key('PageUp', 'PgUp: page up', 'PgUp')}
      {key('PageDown', 'PgDn: page down', 'PgDn')}
      <BarButton label="Smaller text" onPress={() => stepFont(-1)}>
        {icon(AArrowDown)}
      </BarButton>
      <BarButton label="Larger text" onPress={() => stepFont(1)}>
        {icon(AArrowUp)}
      </BarButton>
    </div>
  );
}

function icon(Icon: LucideIcon): ReactNode {
  return <Icon aria-hidden className="size-4" />;
}

function BarButton({
  label,
  pressed,
  className,
  onPress,
  children,
}: {
  label: string;
  pressed?: boolean;
  className?: string;
  onPress: () => void;
  children: ReactNode;
}) {
  return (
    <button
      type="button"
      aria-label={label}
      aria-pressed={pressed}
      // The focus stays in the terminal, or the soft keyboard would go.
      onPointerDown={(event) => event.preventDefault()}
      onClick={onPress}
      className={cn(
        'flex h-11 min-w-11 shrink-0 items-center justify-center rounded-md border border-line bg-raised px-2 text-sm font-medium text-fg select-none focus-inset active:bg-active',
        className,
      )}
    >
      {children}
    </button>
  );
}

const STICKY_CLASSES: Record<Sticky, string> = {
  off: '',
  once: 'border-accent bg-accent-soft text-accent-fg',
  locked: 'border-accent bg-accent text-on-accent',
};

function StickyButton({ label, sticky, onPress }: { label: string; sticky: Sticky; onPress: () => void }) {
  return (
    <BarButton
      label={sticky === 'locked' ? `${label}, locked` : label}
      pressed={sticky !== 'off'}
      className={STICKY_CLASSES[sticky]}
      onPress={onPress}
    >
      {label}
      {sticky === 'locked' && <span aria-hidden> ●</span>}
    </BarButton>
  );
}
