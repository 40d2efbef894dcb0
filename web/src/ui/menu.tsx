import { Check, ChevronRight, type LucideIcon } from 'lucide-react';
import { ContextMenu as RadixContext, DropdownMenu as RadixDropdown } from 'radix-ui';
import type { ReactNode } from 'react';
import { cn } from './cn';

/** One line of a menu. The same list makes a dropdown and a context menu. */
export type MenuItem =
  | {
      kind?: 'item';
      label: string;
      icon?: LucideIcon;
      shortcut?: ReactNode;
      danger?: boolean;
      disabled?: boolean;
      onSelect: () => void;
    }
  | { kind: 'check'; label: string; checked: boolean; onChange: (checked: boolean) => void }
  | { kind: 'submenu'; label: string; icon?: LucideIcon; items: readonly MenuItem[] }
  | { kind: 'heading'; label: ReactNode }
  | { kind: 'separator' };

const CONTENT =
  'z-50 min-w-48 max-w-80 overflow-hidden overflow-y-auto rounded-lg border border-line bg-raised p-1 shadow-md outline-none data-[state=open]:animate-fade';
const ITEM =
  'flex cursor-default items-center gap-2.5 rounded-md px-2.5 py-1.5 text-sm outline-none select-none data-[disabled]:opacity-50 data-[highlighted]:bg-hover data-[state=open]:bg-hover pointer-coarse:py-2.5';

type Parts = typeof RadixDropdown | typeof RadixContext;

function Items({ parts, items }: { parts: Parts; items: readonly MenuItem[] }) {
  // The two primitives have the same parts under the same names.
  const P = parts as typeof RadixDropdown;
  return items.map((item, index) => {
    const key = `${index}`;
    if (item.kind === 'separator') return <P.Separator key={key} className="-mx-1 my-1 h-px bg-line" />;
    if (item.kind === 'heading') {
      return (
        <P.Label key={key} className="px-2.5 py-1.5 text-xs text-fg-3">
          {item.label}
        </P.Label>
      );
    }
    if (item.kind === 'check') {
      return (
        <P.CheckboxItem
          key={key}
          checked={item.checked}
          onCheckedChange={item.onChange}
          className={cn(ITEM, 'text-fg')}
        >
          <span className="flex size-4 items-center">
            <P.ItemIndicator>
              <Check aria-hidden className="size-4 text-accent-fg" />
            </P.ItemIndicator>
          </span>
          {item.label}
        </P.CheckboxItem>
      );
    }
    if (item.kind === 'submenu') {
      return (
        <P.Sub key={key}>
          <P.SubTrigger className={cn(ITEM, 'text-fg')}>
            {item.icon && <item.icon aria-hidden className="size-4 text-fg-3" />}
            <span className="flex-1">{item.label}</span>
            <ChevronRight aria-hidden className="size-4 text-fg-3" />
          </P.SubTrigger>
          <P.Portal>
            <P.SubContent className={CONTENT} collisionPadding={8}>
              <Items parts={parts} items={item.items} />
            </P.SubContent>
          </P.Portal>
        </P.Sub>
      );
    }
    const danger = item.danger ?? false;
    return (
      <P.Item
        key={key}
        disabled={item.disabled ?? false}
        onSelect={item.onSelect}
        className={cn(ITEM, danger ? 'text-bad data-[highlighted]:bg-bad-soft' : 'text-fg')}
      >
        {item.icon && <item.icon aria-hidden className={cn('size-4', danger ? 'text-bad' : 'text-fg-3')} />}
        <span className="flex-1 truncate">{item.label}</span>
        {item.shortcut}
      </P.Item>
    );
  });
}

export function DropdownMenu({
  children,
  items,
  align = 'end',
  side = 'bottom',
}: {
  /** The button that opens it. */
  children: ReactNode;
  items: readonly MenuItem[];
  align?: 'start' | 'center' | 'end';
  side?: 'top' | 'right' | 'bottom' | 'left';
}) {
  return (
    // Not modal: the page behind stays readable, and its focus is never hidden from who hears it.
    <RadixDropdown.Root modal={false}>
      <RadixDropdown.Trigger asChild>{children}</RadixDropdown.Trigger>
      <RadixDropdown.Portal>
        <RadixDropdown.Content
          align={align}
          side={side}
          sideOffset={4}
          collisionPadding={8}
          className={cn(CONTENT, 'max-h-(--radix-dropdown-menu-content-available-height)')}
        >
          <Items parts={RadixDropdown} items={items} />
        </RadixDropdown.Content>
      </RadixDropdown.Portal>
    </RadixDropdown.Root>
  );
}

export function ContextMenu({ children, items }: { children: ReactNode; items: readonly MenuItem[] }) {
  return (
    <RadixContext.Root modal={false}>
      <RadixContext.Trigger asChild>{children}</RadixContext.Trigger>
      <RadixContext.Portal>
        <RadixContext.Content collisionPadding={8} className={CONTENT}>
          <Items parts={RadixContext} items={items} />
        </RadixContext.Content>
      </RadixContext.Portal>
    </RadixContext.Root>
  );
}
