import { Check, ChevronDown } from 'lucide-react';
import { Select as Radix } from 'radix-ui';
import type { ReactNode } from 'react';
import { cn } from './cn';
import { CONTROL } from './input';

export type Option<T extends string> = { value: T; label: ReactNode; note?: ReactNode; disabled?: boolean };

export function Select<T extends string>({
  value,
  onChange,
  options,
  placeholder,
  className,
  ...props
}: {
  value: T | undefined;
  onChange: (value: T) => void;
  options: readonly Option<T>[];
  placeholder?: string;
  className?: string | undefined;
  id?: string;
  disabled?: boolean;
  'aria-label'?: string;
  'aria-describedby'?: string | undefined;
  'aria-invalid'?: true | undefined;
}) {
  const { disabled = false, ...trigger } = props;
  return (
    <Radix.Root value={value ?? ''} onValueChange={(next) => onChange(next as T)} disabled={disabled}>
      <Radix.Trigger
        className={cn(
          CONTROL,
          'flex h-9 items-center justify-between gap-2 px-3 text-left pointer-coarse:h-11 data-[placeholder]:text-fg-3 [&>span]:truncate',
          className,
        )}
        {...trigger}
      >
        <Radix.Value placeholder={placeholder ?? 'Choose…'} />
        <Radix.Icon asChild>
          <ChevronDown aria-hidden className="size-4 shrink-0 text-fg-3" />
        </Radix.Icon>
      </Radix.Trigger>
      <Radix.Portal>
        <Radix.Content
          position="popper"
          sideOffset={4}
          collisionPadding={8}
          className="z-50 max-h-(--radix-select-content-available-height) min-w-(--radix-select-trigger-width) overflow-hidden rounded-lg border border-line bg-raised p-1 shadow-md data-[state=open]:animate-fade"
        >
          <Radix.Viewport>
            {options.map((option) => (
              <Radix.Item
                key={option.value}
                value={option.value}
                disabled={option.disabled ?? false}
                className="relative flex cursor-default flex-col rounded-md py-1.5 pr-8 pl-2.5 text-sm outline-none select-none data-[disabled]:opacity-50 data-[highlighted]:bg-hover pointer-coarse:py-2.5"
              >
                <Radix.ItemText>{option.label}</Radix.ItemText>
                {option.note !== undefined && <span className="text-xs text-fg-3">{option.note}</span>}
                <Radix.ItemIndicator className="absolute top-2 right-2.5">
                  <Check aria-hidden className="size-4 text-accent-fg" />
                </Radix.ItemIndicator>
              </Radix.Item>
            ))}
          </Radix.Viewport>
        </Radix.Content>
      </Radix.Portal>
    </Radix.Root>
  );
}
